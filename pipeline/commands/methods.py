"""``attribeam methods``."""

import argparse
from textwrap import wrap

from attribeam.pipeline.commands.status import DONE


def methods_command(_: argparse.Namespace) -> int:
    """Lists the methods, what they need and how they are set."""
    from rich.console import Console
    from rich.markup import escape

    from attribeam.transforms.registry import DEFINED_BY, methods, values_of

    console = Console(highlight=False)

    def show(text: str, style: str | None = None) -> None:
        for line in wrap(text, console.width - 4, break_on_hyphens=False):
            console.print(f"    {escape(line)}", style=style)

    for method in methods().values():
        facts = {
            "signed": method.signed,
            "class-dependent": method.class_dependent,
            "class-independent": not method.class_dependent,
            "additive": method.additive,
            "stochastic": method.stochastic,
            "by layer": method.layered is not None,
        }
        listed = ", ".join(name for name, true in facts.items() if true)
        console.print(f"[bold]{method.name}[/bold]  cost {escape(method.cost)}; {listed}")
        show(f"{method.equation}  ({method.paper})")
        needs = method.needs(method.params({}))
        show("needs " + (", ".join(map(str, needs)) or "no pass"))
        for trait in method.requires:
            show(DEFINED_BY[trait])
        if method.opt_in is not None:
            show(f"not among `all`: {method.opt_in}", "yellow")
        for name, default in method.defaults.items():
            show(f"--set {method.name}.{name}={values_of(default)}", "dim")
        for name, preset in method.presets.items():
            listed = ", ".join(f"{key}={value}" for key, value in preset.items())
            show(f"--set {method.name}.preset={name}: {listed}", "dim")
    return DONE
