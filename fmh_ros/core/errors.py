# SPDX-License-Identifier: Apache-2.0
"""Typed errors. Each class has one code: the process exit code of ``fmh`` and, later, the action error code.

A message says what was seen, what was expected and what to change.
"""

from __future__ import annotations

from typing import ClassVar


class FmhError(Exception):
    """Base of every error this package raises on purpose.

    ``code`` is unique per class (a test holds that), stable across releases, and below 126 so that it is a valid
    process exit code.
    """

    code: ClassVar[int] = 1

    def __init__(self, seen: str, *, expected: str = "", change: str = "") -> None:
        self.seen = seen
        self.expected = expected
        self.change = change
        parts = [seen.rstrip(".") + "."]
        if expected:
            parts.append(f"Expected {expected.rstrip('.')}.")
        if change:
            parts.append(change.rstrip(".") + ".")
        super().__init__(" ".join(parts))


class UsageError(FmhError):
    """The command line or configuration asks for something that does not exist or does not fit together."""

    code = 2


class FileMissingError(FmhError):
    """A named input file is not there or cannot be opened."""

    code = 10


class ImageError(FmhError):
    """The image is corrupt, too small, or of a kind that cannot be read."""

    code = 11


class DepthError(FmhError):
    """The depth image does not fit the colour image, or its unit or type makes no sense."""

    code = 12


class CameraError(FmhError):
    """The camera calibration is not finite, not plausible, or for another resolution."""

    code = 13


class PromptError(FmhError):
    """A box, point or mask prompt lies outside the image or does not fit it."""

    code = 14


class OutputError(FmhError):
    """An output file or folder cannot be written."""

    code = 15

    @classmethod
    def unwritable(cls, what: str, error: OSError, change: str = "Choose another place") -> OutputError:
        """Return the error for a system that refuses to write ``what``, such as "the folder /x"."""
        return cls(
            f"{what[:1].upper()}{what[1:]} cannot be written ({error.strerror or error})",
            expected="a place with write permission and free space",
            change=change,
        )


class EncodingError(FmhError):
    """An image message has an encoding that cannot be used as what it is given for."""

    code = 16


class UnsupportedPromptError(FmhError):
    """The profile cannot use this kind of prompt."""

    code = 17


class NoHandError(FmhError):
    """No hand was found in the image."""

    code = 20


class AmbiguousHandError(FmhError):
    """Several hands are equally likely and the prompt does not decide between them."""

    code = 21


class NoObjectError(FmhError):
    """A hand was found but it holds nothing that can be seen."""

    code = 22


class EmptyObjectMaskError(FmhError):
    """The object mask is empty, or so large that it is not an object (it touches every border)."""

    code = 23


class HandFitError(FmhError):
    """The hand model could not be fitted to the landmarks."""

    code = 30


class RegistrationError(FmhError):
    """The object could not be placed in the camera frame."""

    code = 31


class EmptyShapeError(FmhError):
    """The generator's final field has no surface."""

    code = 32


class ProfileError(FmhError):
    """The profile does not exist or names a back end that is not installed."""

    code = 40


class ModelMissingError(FmhError):
    """A model's weights or library are not installed."""

    code = 41


class OutOfMemoryError(FmhError):
    """The device ran out of memory."""

    code = 42


class ModelFileError(FmhError):
    """A model file is damaged, is not the model it should be, or holds content that is not safe to load."""

    code = 43


class RemoteModelError(FmhError):
    """A model that runs elsewhere refused the request, or could not be reached."""

    code = 44


class LicenceError(FmhError):
    """A model's licence was not accepted, or its publisher has not let this user in."""

    code = 45


class DownloadError(FmhError):
    """Weights could not be downloaded, or not as they were published."""

    code = 46


class CancelledError(FmhError):
    """The job was cancelled between two iterations; nothing was written."""

    code = 50


class TimeBudgetError(FmhError):
    """The time budget ran out before there was any result to return."""

    code = 51


class BusyError(FmhError):
    """Another job runs, and the queue for more is full."""

    code = 60


class WorkerDiedError(FmhError):
    """The process that runs the models ended in the middle of its work."""

    code = 61


class WorkerHungError(FmhError):
    """The process that runs the models no longer answers, or a job makes no progress."""

    code = 62


class EngineStoppedError(FmhError):
    """The engine that runs the jobs was not started, or was stopped."""

    code = 63


class UnexpectedError(FmhError):
    """A fault of this program: an error that none of the other codes stands for."""

    code = 64


class NoImageError(FmhError):
    """No image arrived in time, or none ever did."""

    code = 80


class StampError(FmhError):
    """No image of the requested stamp is kept, or none came in time."""

    code = 81


class CameraInfoMissingError(FmhError):
    """Images arrive but their calibration does not."""

    code = 82


class SynchronisationError(FmhError):
    """Image, calibration and depth arrive, but no set of them with stamps near enough to each other."""

    code = 83


class FrameMismatchError(FmhError):
    """Messages that belong together name different coordinate frames."""

    code = 84


class TransformError(FmhError):
    """The transform between two frames is not known at the time it is needed for."""

    code = 85


class ClockJumpError(FmhError):
    """Time jumped back while the job ran, so that its stamps mean nothing any more."""

    code = 86


class NotActiveError(FmhError):
    """The node is not active, or was deactivated or shut down before the job ended."""

    code = 87


class NoResultError(FmhError):
    """There is no reconstruction yet, or none with this id is kept."""

    code = 88
