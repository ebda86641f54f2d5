"""Telling: a circuit as a report that opens anywhere, can be checked again, and compared with another.

``record.py`` gathers what a report holds, ``page.py`` draws it, ``text.py`` writes it as Markdown, ``reporting.py``
puts the files in a folder; ``checking.py`` reads one back and does it again, ``comparing.py`` sets two side by side.
"""
