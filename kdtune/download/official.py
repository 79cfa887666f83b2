"""The official places of UCF101 and HMDB51: addresses, sizes, digests and licences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Archive:
    """An archive on the web."""

    name: str
    """File name."""
    urls: tuple[str, ...]
    """Addresses of the same file, tried in this order."""
    size: int
    """Bytes; about, where `exact` is false."""
    exact: bool = False
    """Whether a file of another size is refused."""
    sha256: str = ""
    """Known digest; empty where none is published."""


@dataclass(frozen=True)
class Official:
    """A data set and its archives."""

    dataset: Literal["ucf101", "hmdb51"]
    title: str
    page: str
    licence: str
    videos: Archive
    lists: Archive
    unpacked: int
    """Bytes of the videos, about."""
    classes: int
    count: int
    """Number of videos, all classes together."""


# Neither place publishes a digest. The size of UCF101.rar is what its server states, and the digest of its lists is the
# one that TensorFlow Datasets records for the same address (url_checksums/ucf101.txt).
UCF101 = Official(
    dataset="ucf101",
    title="UCF101, 13,320 videos of 101 actions (Soomro, Zamir, Shah: arXiv 1212.0402)",
    page="https://www.crcv.ucf.edu/data/UCF101.php",
    licence="no licence is stated; the videos come from YouTube and belong to those who made them: for research",
    videos=Archive(
        "UCF101.rar",
        (
            "https://www.crcv.ucf.edu/data/UCF101/UCF101.rar",
            "https://www.crcv.ucf.edu/datasets/human-actions/ucf101/UCF101.rar",
        ),
        size=6_932_971_618,
        exact=True,
    ),
    lists=Archive(
        "UCF101TrainTestSplits-RecognitionTask.zip",
        (
            "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            "https://www.crcv.ucf.edu/wp-content/uploads/2019/03/UCF101TrainTestSplits-RecognitionTask.zip",
        ),
        size=113_943,
        exact=True,
        sha256="5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
    ),
    unpacked=7_000_000_000,
    classes=101,
    count=13_320,
)

# The authors' page links to these files at Google; their old server answers no longer everywhere.
HMDB51 = Official(
    dataset="hmdb51",
    title="HMDB51, 6,766 videos of 51 actions (Kuehne, Jhuang, Garrote, Poggio, Serre: ICCV 2011)",
    page="https://serre.lab.brown.edu/hmdb51.html",
    licence="Creative Commons Attribution 4.0 (https://creativecommons.org/licenses/by/4.0/)",
    videos=Archive(
        "hmdb51_org.rar",
        (
            "https://drive.usercontent.google.com/download?id=17anw5Oxp7lmp9cMwXPOyOpL5olDLmPpj&export=download&confirm=t",
            "http://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/hmdb51_org.rar",
        ),
        size=2_160_000_000,
    ),
    lists=Archive(
        "test_train_splits.rar",
        (
            "https://drive.usercontent.google.com/download?id=1NQxJWJSYWefyNS-LFYCenFih4gRDUPCX&export=download&confirm=t",
            "http://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/test_train_splits.rar",
        ),
        size=220_000,
    ),
    unpacked=2_200_000_000,
    classes=51,
    count=6_766,
)

OFFICIAL = {each.dataset: each for each in (UCF101, HMDB51)}
