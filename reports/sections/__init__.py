"""Chapters of a report, one module a question: the same facts for a terminal and for a page."""
