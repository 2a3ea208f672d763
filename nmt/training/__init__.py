import nmt.backend  # noqa: F401, sets Keras up before a module here imports TensorFlow
