from nmt import backend as _backend  # noqa: F401, before Keras is first imported
