"""The shapes benchmark: procedural objects, their captions, their two looks, and the datasets made from them."""
