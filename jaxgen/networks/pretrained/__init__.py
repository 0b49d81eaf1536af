"""This room holds networks whose published weights others have trained: CLIP, Inception, LPIPS."""
