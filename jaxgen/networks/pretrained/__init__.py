"""Networks whose published weights others have trained: CLIP, Inception, LPIPS."""
