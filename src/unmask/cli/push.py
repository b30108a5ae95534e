"""`unmask push`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from unmask.cli.common import end


def push(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help='A model, a planner or both, as in runs/NAME/final; or "bundled/NAME".'
        ),
    ],
    repo_id: Annotated[str, typer.Argument(help="NAME/MODEL on the hub; made where it is missing.")],
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made where it is missing.")] = None,
    license_id: Annotated[str | None, typer.Option("--license", help="For the model card.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Hub id for the model card.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only show what would go, and the card.")] = False,
) -> None:
    """Send a model folder to a hub, with a model card."""
    from unmask import hub
    from unmask.checkpoint import fetch_folder

    hub.check_repo_id(repo_id)
    folder = fetch_folder(source)
    api = None if dry_run else hub.hub_api()
    files = hub.files_of(folder)
    card = hub.model_card(folder, repo_id, license_id=license_id, base_model=base_model)
    names = [path.name for path in files if path.name != "README.md"]
    sizes = [(folder / name).stat().st_size for name in names] + [len(card.encode())]
    names.append("README.md")
    table = Table("file", "bytes", title=f"{source} -> {repo_id}")
    for name, size in zip(names, sizes, strict=True):
        table.add_row(name, f"{size:,}")
    console = Console()
    console.print(table)
    report = {"repo": repo_id, "files": names, "bytes": sum(sizes), "dry_run": dry_run}
    if api is None:
        console.print(card, markup=False, highlight=False, soft_wrap=True)
    else:
        report["url"] = hub.push(api, repo_id, files, card, private=private, revision=revision)
    end(report)
