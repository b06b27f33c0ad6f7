"""The CIA World Factbook as a corpus: conversion to documents, and a demonstration of asking it."""
