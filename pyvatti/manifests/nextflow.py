"""PURE: what depends on the versions of Nextflow and of the pipelines it runs."""

import re
from collections.abc import Iterator

from pyvatti.settings import Settings

SPOT_TOLD_RIGHT = (26, 4)  # before it a task that Batch retried well counts as preempted (#6779)
USUAL_SPOT_ATTEMPTS = 3
CACHE_PUBLISHED = (3,)  # pgsc_calc from here on publishes a zip of the genotypes, unless told not

# The plugins that a version of Nextflow was released with: exactly these run without a registry
PLUGINS: dict[tuple[int, ...], dict[str, str]] = {
    (25, 10, 4): {"nf-google": "1.23.5", "nf-tower": "1.17.5", "nf-wave": "1.16.1"},
}


def version_of(text: str) -> tuple[int, ...] | None:
    """Read 25.10.4, v2.0.0-alpha.5 or 3.0 as numbers; None where it is no version."""
    found = re.fullmatch(r"v?([0-9]+(?:\.[0-9]+){1,2})(?:[-.+].*)?", text)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def spot_attempts(settings: Settings) -> int:
    """Give how often Batch itself begins a preempted task again: the setting, or what is safe."""
    if settings.max_spot_attempts is not None:
        return settings.max_spot_attempts
    return USUAL_SPOT_ATTEMPTS if _tells_spot_right(settings) else 0


def plugins(settings: Settings) -> dict[str, str]:
    """Give NXF_PLUGINS_DEFAULT of each container, empty where the right versions are not known."""
    pins = PLUGINS.get(version_of(settings.nextflow) or ())
    wanted = {
        "transfer": ["nf-google"],
        "calculation": ["nf-google", "nf-tower"] + ["nf-wave"] * (settings.wave or settings.fusion),
    }
    return {
        container: ",".join(f"{name}@{pins[name]}" for name in names) if pins else ""
        for container, names in wanted.items()
    }


def may_publish_genotypes(revision: str) -> bool:
    """Tell whether this pgsc_calc may publish its genotypes; of no version nobody knows."""
    version = version_of(revision)
    return version is None or version >= CACHE_PUBLISHED


def doubts(settings: Settings) -> Iterator[str]:
    """Say what is doubtful about the driver image's Nextflow and what is asked of it."""
    if version_of(settings.nextflow) is None:
        yield (
            "NEXTFLOW_IMAGE: its tag names no version of Nextflow; NEXTFLOW_VERSION is to name it:"
            " parser, plugins and retries follow from it"
        )
    if spot_attempts(settings) and not _tells_spot_right(settings):
        yield (
            "MAX_SPOT_ATTEMPTS: before Nextflow 26.04 a task that Batch retried successfully counts"
            " as preempted and runs again; 0 leaves the retries to Nextflow"
        )


def _tells_spot_right(settings: Settings) -> bool:
    version = version_of(settings.nextflow)
    return version is not None and version >= SPOT_TOLD_RIGHT
