"""The field's tasks written in English, for any tokenizer. `writers.py` lists them; one room per kind of task."""
