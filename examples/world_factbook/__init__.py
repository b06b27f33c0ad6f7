"""The CIA World Factbook as a corpus: conversion to documents, and a demo."""
