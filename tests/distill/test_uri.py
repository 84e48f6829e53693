import pytest
from pyarrow.fs import FileSelector

from distill.uri import is_uri, open_uri, reason, without_secrets

SECRET = "s3://KEY:hunter2@bucket/folder?region=eu-west-1&session=hunter3"


def test_a_path_is_no_uri():
    assert is_uri("s3://bucket")
    assert not is_uri("/data/s3:/x")


@pytest.mark.parametrize("scheme", ["local", "file"])
def test_pyarrow_and_fsspec_open_the_same_folder(tmp_path, scheme):
    (tmp_path / "x").write_bytes(b"abc")
    system, path = open_uri(f"{scheme}://{tmp_path}")
    assert [(info.base_name, info.size) for info in system.get_file_info(FileSelector(path))] == [("x", 3)]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s4://bucket/x", r"cannot open s4://bucket/x: no file system answers to s4://, .*\. Did you mean 's3'\?"),
        ("gcss://bucket/x", "Did you mean 'gcs'"),
        ("qqqqq://bucket/x", r"answers to qqqqq://, as they do to s3://, gs:// and abfs://\.$"),
        ("s3://bad uri", "cannot open s3://bad uri: Cannot parse URI"),
    ],
)
def test_what_nothing_answers_to_is_refused(uri, message):
    with pytest.raises(ValueError, match=message):
        open_uri(uri)


def test_a_missing_package_is_named():
    with pytest.raises(ValueError, match=r"cannot open gdrive://x: .*gdrive"):
        open_uri("gdrive://x")


def test_messages_hold_no_secret_and_one_line():
    assert without_secrets(SECRET) == "s3://bucket/folder"
    assert without_secrets("memory:///a/b") == "memory:///a/b"
    error = OSError(f"no answer from {SECRET} with hunter2\ndlopen failed\ndlopen failed")
    assert reason(error, SECRET) == "no answer from s3://bucket/folder with ***"
    assert reason(OSError("KEY:hunter2 or region=eu-west-1&session=hunter3"), SECRET) == "*** or ***"
    assert reason(TimeoutError(), SECRET) == "TimeoutError"


def test_an_unknown_scheme_shows_no_secret():
    with pytest.raises(ValueError, match="answers to nosuch") as error:
        open_uri(SECRET.replace("s3", "nosuch"))
    assert "hunter" not in str(error.value)
