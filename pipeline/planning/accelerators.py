"""Facts about GPUs that can be rented: what they compute at most, hold and cost."""

from dataclasses import dataclass

from attribeam.schemas import UsageError

# Of the peak, what passes over full batches reach; a cautious guess, which measuring replaces.
UTILISATION = 0.4


@dataclass(frozen=True)
class Accelerator:
    """A GPU, with the smallest machine that has one.

    Attributes:
        label: Its name.
        memory: In bytes.
        float32: Peak in operations a second outside of tensor cores, as ``--dtype float32`` uses
            it: TF32 stays off (matmul precision "highest").
        float64: The same in double precision.
        bfloat16: Peak of the tensor cores, without sparsity; None if it has none for bfloat16.
        price: Dollars an hour on demand, of the machine as a whole (``PRICES_OF``).
        machine: Which machine that is.
    """

    label: str
    memory: float
    float32: float
    float64: float
    bfloat16: float | None
    price: float
    machine: str

    def rate(self, dtype: str) -> float:
        """What passes may reach in a precision (``--dtype``), in operations a second.

        Raises:
            UsageError: If the GPU does not compute in it.
        """
        peak = {"float32": self.float32, "float64": self.float64}.get(dtype, self.bfloat16)
        if peak is None:
            raise UsageError(f"{self.label} does not compute in bfloat16; use --dtype float32")
        return peak * UTILISATION


PRICES_OF = "about what Google Compute Engine asks on demand in us-central1; yours may differ"

# Peaks and memory from NVIDIA's data sheets (SXM versions of A100 and H100).
ACCELERATORS = {
    "t4": Accelerator("T4", 16e9, 8.1e12, 0.25e12, None, 0.54, "n1-standard-4 and a T4"),
    "l4": Accelerator("L4", 24e9, 30.3e12, 0.47e12, 121e12, 0.71, "g2-standard-4"),
    "a100": Accelerator("A100 40 GB", 40e9, 19.5e12, 9.7e12, 312e12, 3.67, "a2-highgpu-1g"),
    "a100-80gb": Accelerator("A100 80 GB", 80e9, 19.5e12, 9.7e12, 312e12, 5.07, "a2-ultragpu-1g"),
    "h100": Accelerator("H100 80 GB", 80e9, 67e12, 34e12, 989e12, 10.98, "a3-highgpu-1g"),
}
