"""KL to the base in a language model: what is forgotten, and what is learnt."""
