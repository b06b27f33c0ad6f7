"""Loaders: files of many formats to documents."""
