"""One file per checkpoint format: each opens a folder's files and yields (name, tensor) without copying."""
