"""Everything voxpanel raises on purpose, as one tree.

VoxpanelError
├── AudioError        a file could not become samples
├── ManifestError     a row of a manifest is wrong; the line is named
├── ConfigError       a setting is unknown, missing or out of range
├── BackboneError     a speech encoder could not be found or loaded
├── CheckpointError   a model folder is not ours, incomplete or from a newer format
└── DataError         arrays or scores do not fit together (a ValueError too)
"""


class VoxpanelError(Exception):
    """The base: an input was wrong, and the message says where and what to do."""


class AudioError(VoxpanelError):
    """A file, some bytes or an array could not become samples."""


class ManifestError(VoxpanelError):
    """A row or the header of a manifest is wrong; the message names the line."""


class ConfigError(VoxpanelError):
    """A setting is unknown, missing or out of its range."""


class BackboneError(VoxpanelError):
    """A speech encoder could not be found or loaded."""


class CheckpointError(VoxpanelError):
    """A model folder is not ours, incomplete, or from a newer format."""


class DataError(VoxpanelError, ValueError):
    """Arrays or scores do not fit together."""
