"""Settings of the Jupyter kernels that the workbench starts."""

# Without this every kernel warns that it talks over TCP in plain text. Unlike IPC, it works on every system, and it
# needs no socket files, whose paths macOS limits to 104 characters. Kernels that cannot encrypt start as before.
KERNEL_SETTINGS = {"KernelManager": {"transport_encryption": "auto"}}
