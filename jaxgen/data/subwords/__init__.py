"""This room holds tokenizers that cut words into pieces, and reads their folders."""
