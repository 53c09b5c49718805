"""The commit that stands beside a figure."""

import subprocess

from saliency_jax.environment import commit_of, environment


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["commit"] == ""


def test_the_commit_is_that_of_the_own_repository(tmp_path):
    repository = tmp_path / "repository"
    (repository / "inner").mkdir(parents=True)
    tracked = repository / "file"
    tracked.write_text("as committed")

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(
            ["git", *who, *arguments],
            cwd=repository,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    git("init", "-q")
    assert commit_of(repository) == ""
    git("add", "file")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD")
    (repository / "untracked").write_text("such as a run")
    assert len(head) == 40 and commit_of(repository) == head
    assert commit_of(repository / "inner") == ""
    tracked.write_text("edited")
    assert commit_of(repository) == f"{head}-dirty"
    assert commit_of(tmp_path) == ""
