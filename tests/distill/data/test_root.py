import pytest

from distill.data.root import resolve_root


def test_root_defaults_to_the_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLERY_DATA", str(tmp_path))
    assert resolve_root(None).path == tmp_path


def test_variables_in_root_are_expanded(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.setenv("DISTILLERY_DATA", str(tmp_path))
    assert resolve_root("${DISTILLERY_DATA}/sub").path == tmp_path / "sub"
    assert resolve_root("$DISTILLERY_DATA/sub").path == tmp_path / "sub"


def test_a_file_uri_is_a_path(tmp_path):
    (tmp_path / "with space").mkdir()
    assert resolve_root(f"file://{tmp_path}/with%20space").path == tmp_path / "with space"


def test_any_other_uri_is_remote_and_may_come_by_variables(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.setenv("DISTILLERY_DATA", f"local://{tmp_path}")
    for root in (resolve_root(None), resolve_root("$DISTILLERY_DATA")):
        assert root.location() == f"local://{tmp_path}"
        assert root.folders() == ["sub"]
    assert resolve_root("${DISTILLERY_DATA}/sub").location("x") == f"local://{tmp_path}/sub/x"


def test_a_relative_root_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_root("data").path == tmp_path / "data"


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (None, "root must name the folder.*DISTILLERY_DATA.*found neither"),
        ("${DISTILLERY_DATA}/x", "DISTILLERY_DATA unset"),
        ("$NO_SUCH_FOLDER/x", "NO_SUCH_FOLDER unset"),
        ("file://host/x", "must be file:/// and an absolute path"),
        ("file:///no/such/folder", "existing folder, found /no/such/folder"),
        ("memory://no-such-folder", "existing folder, found none at memory://no-such-folder"),
        ("s4://bucket/x", r"path or a URI that can be opened: .* answers to s4://, .* Did you mean 's3'"),
        ("/no/such/folder", "existing folder, found /no/such/folder"),
    ],
)
def test_a_root_that_leads_nowhere_is_refused(root, message, monkeypatch):
    monkeypatch.delenv("DISTILLERY_DATA", raising=False)
    with pytest.raises(ValueError, match=message):
        resolve_root(root)
