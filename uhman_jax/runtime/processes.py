"""The processes that train one run together, as the command line describes them.

Only process 0 writes: it holds the lock of the run directory, prepares the data, and writes
checkpoints, metrics and report. All processes read the same folders and take every step together.
"""

import dataclasses
import math
import os
import re

from uhman_jax.runtime.errors import UserError

AUTO = "auto"
_PORT = re.compile(r"[^:\s]+:\d{1,5}")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The devices and processes that share the work.

    Attributes:
        mesh: "DATAxMODEL", see `Devices`; "": one device, or with several processes all devices
            along `data`.
        coordinator: HOST:PORT of process 0; "auto": the environment of a TPU slice or SLURM gives
            this and the next two; "": there is only this process.
        num_processes: number of processes of the run.
        process: index of this process.
    """

    mesh: str = ""
    coordinator: str = ""
    num_processes: int = 1
    process: int = 0

    def check(self) -> None:
        """Raises UserError if the flags do not fit each other."""
        if self.mesh and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", self.mesh):
            raise UserError(
                "--mesh must be two numbers of devices, for the videos of a batch and for the "
                f"hashtags, got {self.mesh!r}; write e.g. --mesh=4x2"
            )
        if self.coordinator not in ("", AUTO) and not _PORT.fullmatch(self.coordinator):
            raise UserError(
                "--coordinator must be HOST:PORT of process 0 or auto, got "
                f"{self.coordinator!r}; write e.g. --coordinator=10.0.0.2:8476"
            )
        if not 0 <= self.process < self.num_processes:
            raise UserError(
                f"--process must be from 0 to {self.num_processes - 1}, one less than "
                f"--num_processes, got {self.process}; number the processes from 0"
            )
        if self.num_processes > 1 and not self.coordinator:
            raise UserError(
                f"--num_processes {self.num_processes} needs --coordinator, got none; write "
                "HOST:PORT of process 0, the same for all"
            )

    def initialize(self) -> None:
        """Connects to the other processes and checks the number of devices.

        Raises:
            UserError: a process cannot be reached, or the mesh does not have all devices.
        """
        if not (self.coordinator or self.mesh):
            # The region projection uses its GPU kernels only if JAX sees a single device.
            os.environ.setdefault("JAX_CUDA_VISIBLE_DEVICES", "0")
            return
        import jax

        try:
            if self.coordinator == AUTO:
                jax.distributed.initialize()
            elif self.coordinator:
                jax.distributed.initialize(
                    self.coordinator, num_processes=self.num_processes, process_id=self.process
                )
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"the processes of a run must find each other, got {reason!r} with "
                f"--coordinator={self.coordinator}; start all of them, and let them reach its port"
            ) from error
        count = jax.device_count()
        if self.mesh and math.prod(map(int, self.mesh.split("x"))) != count:
            raise UserError(
                f"--mesh must multiply to the number of devices, {count}, got {self.mesh}; "
                f"use e.g. {count}x1"
            )

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes; call it after `initialize`."""
        if not self.coordinator:
            return True
        import jax

        return jax.process_index() == 0

    def barrier(self, name: str) -> None:
        """Waits until all processes have reached the barrier of this name."""
        if self.coordinator:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(name)

    def shape(self) -> tuple[int, int] | None:
        """Returns the devices along `data` and `model`; None for one device."""
        if self.mesh:
            data, model = self.mesh.split("x")
            return int(data), int(model)
        if not self.coordinator:
            return None
        import jax

        return jax.device_count(), 1
