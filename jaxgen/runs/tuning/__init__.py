"""This room holds what a tuned run needs beside its method: new words in tokenizers, and files of grafts."""
