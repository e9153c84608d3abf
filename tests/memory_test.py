from uhman_jax.runtime import memory


def test_a_limit_of_a_group_around_counts(tmp_path):
    inner = tmp_path / "slurm" / "job"
    inner.mkdir(parents=True)
    (tmp_path / "slurm" / "memory.max").write_text("4096\n")
    (inner / "memory.max").write_text("max\n")
    (tmp_path.parent / "memory.max").write_text("1\n")  # above the root of all groups
    assert memory._limits(tmp_path, "slurm/job", "memory.max") == [4096]
