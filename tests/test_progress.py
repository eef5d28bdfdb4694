"""What a person sees of progress."""

import io

from realiz3d_jax import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_within_bars_share_one_display_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    for _ in range(2):  # the second display comes after the first has gone
        with progress.bar("sampling", 2) as outer:
            for _ in range(2):
                with progress.bar("unwrapping", 1) as inner:
                    inner()
                outer(note="chair")
    assert "sampling" in terminal.getvalue()
    assert "unwrapping" in terminal.getvalue()


def test_elsewhere_each_bar_ends_with_a_line(capsys):
    with progress.bar("sampling", 2) as outer, progress.bar("texturing", 2) as inner:
        outer(2)
        inner(1, "chair")
    assert capsys.readouterr().err.splitlines() == ["texturing: 1/2, 0 s, chair", "sampling: 2/2, 0 s"]
