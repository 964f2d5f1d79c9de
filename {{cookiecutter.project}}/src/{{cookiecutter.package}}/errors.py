"""Errors that a user can act on; each family ends the command with an exit code of its own."""


class ProjectError(Exception):
    """Base of all errors that are reported in one line, without a traceback."""

    exit_code = 1


class SettingsError(ProjectError):
    """params.yaml or the environment holds a value that cannot be used."""

    exit_code = 3


class DataError(ProjectError):
    """A source is missing or cannot be read as a table."""

    exit_code = 4


class ContractError(ProjectError):
    """Data do not keep the contract."""

    exit_code = 5


class TrainingError(ProjectError):
    """A pipeline cannot be built or fitted."""

    exit_code = 6


class BundleError(ProjectError):
    """A bundle is missing, incomplete, altered or incompatible."""

    exit_code = 7


class ServingError(ProjectError):
    """The service cannot start."""

    exit_code = 8


class RegistryError(ProjectError):
    """MLflow's store cannot be reached, or holds no such run, model or alias."""

    exit_code = 9


class GateError(ProjectError):
    """A challenger was refused; the champion stays."""

    exit_code = 10


class StoreError(ProjectError):
    """The store of events cannot be reached or used."""

    exit_code = 11


class SmokeError(ProjectError):
    """A running service does not answer as its bundle promises."""

    exit_code = 12


class UndecidedError(ProjectError):
    """Truths are too few to decide about a challenger; a person has to."""

    exit_code = 13


class DispatchError(ProjectError):
    """GitHub cannot be asked to start retraining."""

    exit_code = 14


class ViewerError(ProjectError):
    """A tool that shows what was monitored cannot be installed, or fails."""

    exit_code = 15


class StoppedError(ProjectError):
    """Ctrl-C ended a command that goes on when it is run again; the shell's code for it."""

    exit_code = 130
