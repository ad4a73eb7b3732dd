"""The one door to everything remote: files of the Hugging Face hub, and of plain addresses."""
