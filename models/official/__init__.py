"""Key names and layouts of released weights, one file per model; `official_names.py` looks them up.

The file has the model's name. It defines `official_name(model, key)`: the released name of our state-dict key, None if
the release has no such weight; and `in_our_layout(model, key, value)`: the released tensor in our layout. Where the
release holds tensors that its own network never reads, `unread(model)` gives their names and shapes; where it holds in
pieces what we hold in one, `joined(official)` joins them beforehand. A release for another skeleton than Human3.6M's 17
joints names it in `skeleton(config)`; a release that is a file of Keras has `named_layers(layers)`.
"""
