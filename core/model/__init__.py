"""The model in Hugging Face form, its routers, tokenizer and export."""
