"""A data set's metadata in Croissant, the schema of MLCommons, as JSON-LD.

It describes the index of the samples: split, name, label, size and SHA-256 of each image. The
images themselves stay where they are; `data.url` of the card says where they can be had. The index
has to lie beside the metadata for the records to be read.
"""

import json
from collections.abc import Sequence
from typing import Any

from sknet.passport.fields import DataFields
from sknet.records import Dataset, Shards
from sknet.records.data import INDEX_FILE

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
CONFORMS_TO_RAI = "http://mlcommons.org/croissant/RAI/1.0"

SPLITS = {"train": "TrainingSplit", "val": "ValidationSplit", "test": "TestSplit"}
"""Our split → Croissant's name of it."""

# The context of Croissant 1.0, word for word: readers warn of any other.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

COLUMNS = (
    ("split", "sc:Text", "Split of the image"),
    ("key", "sc:Text", "Name of the image in the source"),
    ("label", "sc:Integer", "Position of its class, from 0"),
    ("size", "sc:Integer", "Size of the image's file, in bytes"),
    ("sha256", "sc:Text", "SHA-256 of the image's file"),
)


def croissant_metadata(shards: Shards, index_sha256: str, fields: DataFields) -> bytes:
    """Return the metadata of a data set.

    Args:
        shards: The data set, and what was left out of it.
        index_sha256: SHA-256 of the file of the index.
        fields: What people say of the data set.
    """
    dataset = shards.dataset
    metadata: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CONFORMS_TO, CONFORMS_TO_RAI],
        "name": fields.name or f"{dataset.source}-{dataset.samples_digest[:10]}",
        "description": fields.description or _description(dataset),
        "identifier": f"sha256:{dataset.samples_digest}",
        **_told(fields),
        "rai:dataLimitations": _limitations(shards),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": INDEX_FILE,
                "name": INDEX_FILE,
                "description": "The index of the images",
                "contentUrl": INDEX_FILE,
                "encodingFormat": "application/x-parquet",
                "sha256": index_sha256,
            }
        ],
        "recordSet": [_splits(dataset), _classes(dataset), _samples()],
    }
    return json.dumps(metadata, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _told(fields: DataFields) -> dict[str, Any]:
    """Return the properties that people fill; without those that they don't."""
    properties = {
        "license": fields.license_link or (fields.license and _spdx(fields.license)),
        "url": fields.url,
        "datePublished": fields.published,
        "version": fields.version,
        "citeAs": fields.citation,
        "rai:dataCollection": fields.collection,
        "rai:personalSensitiveInformation": fields.personal_information,
    }
    told: dict[str, Any] = {name: value for name, value in properties.items() if value}
    if fields.creator:
        told["creator"] = {"@type": "sc:Organization", "name": fields.creator}
    return told


def _spdx(licence: str) -> str:
    return f"https://spdx.org/licenses/{licence}.html"


def _description(dataset: Dataset) -> str:
    counts = ", ".join(f"{count:,} images in {split}" for split, count in dataset.splits.items())
    return f"Images of {len(dataset.classes):,} classes from {dataset.source}: {counts}."


def _limitations(shards: Shards) -> str:
    """Return what is known to be wrong with the data, in sentences."""
    dataset = shards.dataset
    sentences = []
    left_out = len(dataset.quarantined) + len(shards.quarantined)
    if left_out:
        sentences.append(f"{left_out:,} files were left out because they can't be used.")
    sentences += leak_sentences(dataset)
    if contradicting := sum(group.contradicts for group in dataset.copies):
        sentences.append(f"{contradicting:,} images are there under several labels.")
    if dataset.dropped:
        sentences.append(
            f"{len(dataset.dropped):,} images were dropped, as a copy of each is in another split."
        )
    return " ".join(sentences) or "No unusable files, and no copies in other splits, are known."


def leak_sentences(dataset: Dataset) -> list[str]:
    """Return a sentence for each split with images of which a copy is in another split."""
    leaked = {split: len(dataset.leaked(split)) for split in dataset.splits}
    return [
        f"{count:,} images of {split} have a copy in another split."
        for split, count in leaked.items()
        if count
    ]


def _splits(dataset: Dataset) -> dict[str, Any]:
    rows = [
        {"splits/name": split, "splits/url": f"cr:{SPLITS[split]}"}
        for split in dataset.splits
        if split in SPLITS
    ]
    columns = [("name", "sc:Text", "Name of the split"), ("url", "sc:URL", "Meaning of the split")]
    return _listed("splits", "cr:Split", "name", columns, rows)


def _classes(dataset: Dataset) -> dict[str, Any]:
    rows = [
        {"classes/label": label, "classes/name": name, "classes/title": title}
        for label, (name, title) in enumerate(zip(dataset.classes, dataset.titles, strict=True))
    ]
    columns = [
        ("label", "sc:Integer", "Position of the class, from 0"),
        ("name", "sc:Text", "Name of the class in the source"),
        ("title", "sc:Text", "Readable name of the class"),
    ]
    return _listed("classes", "sc:Enumeration", "label", columns, rows)


def _listed(
    name: str,
    data_type: str,
    key: str,
    columns: Sequence[tuple[str, str, str]],
    rows: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return a record set whose records stand in the metadata themselves."""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "dataType": data_type,
        "key": {"@id": f"{name}/{key}"},
        "field": [_field(name, *column) for column in columns],
        "data": rows,
    }


def _samples() -> dict[str, Any]:
    references = {"split": "splits/name", "label": "classes/label"}
    fields = []
    for name, data_type, description in COLUMNS:
        field = _field("samples", name, data_type, description)
        field["source"] = {"fileObject": {"@id": INDEX_FILE}, "extract": {"column": name}}
        if name in references:
            field["references"] = {"field": {"@id": references[name]}}
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "One record for each image",
        "key": {"@id": "samples/key"},
        "field": fields,
    }


def _field(record_set: str, name: str, data_type: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "description": description,
        "dataType": data_type,
    }
