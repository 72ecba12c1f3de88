"""The package list, the mapped folders and the committed links agree with the tree."""

import tomllib
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py", "base.py"}


def folders_with_modules() -> dict[str, Path]:
    found = {}
    tops = {"snnsim": ROOT / "snnsim", "snnsim.kernels": ROOT / "kernels", "snnsim.datasets": ROOT / "datasets"}
    for name, top in tops.items():
        for init in top.rglob("__init__.py"):
            inner = init.parent.relative_to(top).parts
            if not any((top / Path(*inner[: depth + 1])).is_symlink() for depth in range(len(inner))):
                found[".".join((name, *inner))] = init.parent
    return found


def test_package_list_equals_folders() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders_with_modules())


def test_every_folder_with_python_is_a_package() -> None:
    packages = {folder.resolve() for folder in folders_with_modules().values()}
    for top in ("snnsim", "kernels", "datasets"):
        for module in (ROOT / top).rglob("*.py"):
            assert module.parent.resolve() in packages, f"{module} lies in a folder without __init__.py"


def test_mapped_folders_have_links_for_tools_that_read_the_tree() -> None:
    mapped = {name.split(".")[1]: target for name, target in SETUPTOOLS["package-dir"].items() if "." in name}
    assert mapped == {"kernels": "kernels", "datasets": "datasets"}
    for name, target in mapped.items():
        link = ROOT / "snnsim" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / target


def test_mapped_packages_import_under_one_name_only() -> None:
    for name in ("kernels", "datasets"):
        spec = find_spec(f"snnsim.{name}")
        assert spec is not None
        assert Path(spec.origin or "").resolve() == ROOT / name / "__init__.py"


def test_package_data_patterns_match_something() -> None:
    places = folders_with_modules()
    for package, patterns in SETUPTOOLS["package-data"].items():
        for pattern in patterns:
            assert list(places[package].glob(pattern)), f"{package}: no file matches {pattern}"


def test_no_file_has_a_name_without_a_subject() -> None:
    for folder in folders_with_modules().values():
        assert not FORBIDDEN_NAMES & {module.name for module in folder.glob("*.py")}
