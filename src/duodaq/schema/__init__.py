"""Arrow schemas, versioned, with builders to and from measurements. Frames are never copied on the way."""

from duodaq.schema._events import numeric_scalars, scpi_event_batch, stage_batch, stage_scalars
from duodaq.schema._frames import bytes_of, frame_batch, frames_of, has_pixels, pixels_of, tensor_column
from duodaq.schema._rows import (
    image_batch,
    images_of,
    measurement_batch,
    scalar_batch,
    scalars_of,
    spectra_of,
    spectrum_batch,
    vector_batch,
    vectors_of,
)
from duodaq.schema._schemas import camera_frame, image, scalar, scpi_event, spectrum, stage, tensor, vector
from duodaq.schema._stream import (
    channel_of,
    instrument_of,
    origin_of,
    schema_name,
    stream_id,
    stream_of,
    stream_of_schema,
    with_origin,
)
from duodaq.schema._wire import wire, wire_batch, wire_records
from duodaq.schema._wirelog_file import WIRE_FILE, WirelogFile, open_wirelog

__all__ = [
    "WIRE_FILE",
    "WirelogFile",
    "bytes_of",
    "camera_frame",
    "channel_of",
    "frame_batch",
    "frames_of",
    "has_pixels",
    "image",
    "image_batch",
    "images_of",
    "instrument_of",
    "measurement_batch",
    "numeric_scalars",
    "open_wirelog",
    "origin_of",
    "pixels_of",
    "scalar",
    "scalar_batch",
    "scalars_of",
    "schema_name",
    "scpi_event",
    "scpi_event_batch",
    "spectra_of",
    "spectrum",
    "spectrum_batch",
    "stage",
    "stage_batch",
    "stage_scalars",
    "stream_id",
    "stream_of",
    "stream_of_schema",
    "tensor",
    "tensor_column",
    "vector",
    "vector_batch",
    "vectors_of",
    "wire",
    "wire_batch",
    "wire_records",
    "with_origin",
]
