import pytest

from distill.data.root import resolve_root


def test_root_defaults_to_the_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLERY_DATA", str(tmp_path))
    assert resolve_root(None) == tmp_path


def test_variables_in_root_are_expanded(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.setenv("DISTILLERY_DATA", str(tmp_path))
    assert resolve_root("${DISTILLERY_DATA}/sub") == tmp_path / "sub"
    assert resolve_root("$DISTILLERY_DATA/sub") == tmp_path / "sub"


def test_a_relative_root_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_root("data") == tmp_path / "data"


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (None, "root must name the folder.*DISTILLERY_DATA.*found neither"),
        ("${DISTILLERY_DATA}/x", "DISTILLERY_DATA unset"),
        ("$NO_SUCH_FOLDER/x", "NO_SUCH_FOLDER unset"),
        ("s3://bucket/x", "URI 's3://bucket/x'"),
        ("/no/such/folder", "existing folder, found /no/such/folder"),
    ],
)
def test_a_root_that_leads_nowhere_is_refused(root, message, monkeypatch):
    monkeypatch.delenv("DISTILLERY_DATA", raising=False)
    with pytest.raises(ValueError, match=message):
        resolve_root(root)
