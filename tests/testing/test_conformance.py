"""The conformance table goes to the terminal and, where asked, to a file."""

import pytest

from dinat_ref.command import CommandError
from dinat_ref.testing.conformance import main


def test_the_table_is_written_to_a_file_too(tmp_path, capsys):
    assert main(["--only", "no such kernel", "--out", str(tmp_path / "table.md")]) == 0
    written = (tmp_path / "table.md").read_text()
    assert written.startswith("| kernel | package | passed | failed |")
    assert capsys.readouterr().out == written


def test_a_file_that_cannot_be_written_is_said_before_any_work(tmp_path):
    with pytest.raises(CommandError, match="it is a folder"):
        main(["--out", str(tmp_path)])
