"""Processors of words: they read what `text` or `ocr` has read."""
