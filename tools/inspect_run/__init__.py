"""Shows how a trained model treats its users, as a page and as numbers."""
