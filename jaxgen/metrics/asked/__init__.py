"""This room compares samples with what they were asked for: attributes, conditions, embeddings, tokens."""
