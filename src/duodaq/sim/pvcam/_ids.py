"""Parameter ids, types, attributes and enum values of the PVCAM SDK, as its header numbers them.

An id is ``class << 16 | type << 24 | number``. The names are those of pyvcam.constants, so a test compares them all.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Access", "Attr", "Param", "ParamType", "Status"]


class ParamType(IntEnum):
    """What a parameter holds."""

    INT16 = 1
    INT32 = 2
    FLT64 = 4
    UNS8 = 5
    UNS16 = 6
    UNS32 = 7
    UNS64 = 8
    ENUM = 9
    BOOLEAN = 11
    INT8 = 12
    CHAR_PTR = 13
    VOID_PTR = 14
    INT64 = 16
    SMART_STREAM_TYPE_PTR = 18
    RGN_TYPE = 20


class Attr(IntEnum):
    """What may be asked of a parameter."""

    CURRENT = 0
    COUNT = 1
    TYPE = 2
    MIN = 3
    MAX = 4
    DEFAULT = 5
    INCREMENT = 6
    ACCESS = 7
    AVAIL = 8
    LIVE = 9


class Access(IntEnum):
    """Who may change a parameter."""

    READ_ONLY = 1
    READ_WRITE = 2
    EXIST_CHECK_ONLY = 3
    WRITE_ONLY = 4


class Status(IntEnum):
    """Where an acquisition stands. 3 means READOUT_COMPLETE in a sequence and FRAME_AVAILABLE in live mode."""

    READOUT_NOT_ACTIVE = 0
    EXPOSURE_IN_PROGRESS = 1
    READOUT_IN_PROGRESS = 2
    FRAME_AVAILABLE = 3
    READOUT_FAILED = 4


def _id(group: int, kind: ParamType, number: int) -> int:
    return (group << 16) + (kind << 24) + number


class Param(IntEnum):
    """The parameters that a simulated camera can have."""

    DD_VERSION = _id(0, ParamType.UNS16, 2)
    CAM_INTERFACE_TYPE = _id(0, ParamType.ENUM, 10)
    CAM_INTERFACE_MODE = _id(0, ParamType.ENUM, 11)
    ADC_OFFSET = _id(2, ParamType.INT16, 195)
    CHIP_NAME = _id(2, ParamType.CHAR_PTR, 129)
    SYSTEM_NAME = _id(2, ParamType.CHAR_PTR, 130)
    VENDOR_NAME = _id(2, ParamType.CHAR_PTR, 131)
    PRODUCT_NAME = _id(2, ParamType.CHAR_PTR, 132)
    CAMERA_PART_NUMBER = _id(2, ParamType.CHAR_PTR, 133)
    COOLING_MODE = _id(2, ParamType.ENUM, 214)
    COLOR_MODE = _id(2, ParamType.ENUM, 504)
    PIX_PAR_DIST = _id(2, ParamType.UNS16, 500)
    PIX_PAR_SIZE = _id(2, ParamType.UNS16, 63)
    PIX_SER_DIST = _id(2, ParamType.UNS16, 501)
    PIX_SER_SIZE = _id(2, ParamType.UNS16, 62)
    FWELL_CAPACITY = _id(2, ParamType.UNS32, 506)
    PAR_SIZE = _id(2, ParamType.UNS16, 57)
    SER_SIZE = _id(2, ParamType.UNS16, 58)
    READOUT_TIME = _id(2, ParamType.FLT64, 179)
    CLEARING_TIME = _id(2, ParamType.INT64, 180)
    POST_TRIGGER_DELAY = _id(2, ParamType.INT64, 181)
    PRE_TRIGGER_DELAY = _id(2, ParamType.INT64, 182)
    CLEAR_CYCLES = _id(2, ParamType.UNS16, 97)
    CLEAR_MODE = _id(2, ParamType.ENUM, 523)
    FRAME_CAPABLE = _id(2, ParamType.BOOLEAN, 509)
    PMODE = _id(2, ParamType.ENUM, 524)
    TEMP = _id(2, ParamType.INT16, 525)
    TEMP_SETPOINT = _id(2, ParamType.INT16, 526)
    CAM_FW_VERSION = _id(2, ParamType.UNS16, 532)
    HEAD_SER_NUM_ALPHA = _id(2, ParamType.CHAR_PTR, 533)
    FAN_SPEED_SETPOINT = _id(2, ParamType.ENUM, 710)
    EXPOSURE_MODE = _id(2, ParamType.ENUM, 535)
    EXPOSE_OUT_MODE = _id(2, ParamType.ENUM, 560)
    BIT_DEPTH = _id(2, ParamType.INT16, 511)
    BIT_DEPTH_HOST = _id(2, ParamType.INT16, 551)
    IMAGE_FORMAT = _id(2, ParamType.ENUM, 248)
    IMAGE_FORMAT_HOST = _id(2, ParamType.ENUM, 552)
    IMAGE_COMPRESSION = _id(2, ParamType.ENUM, 249)
    IMAGE_COMPRESSION_HOST = _id(2, ParamType.ENUM, 253)
    SCAN_MODE = _id(3, ParamType.ENUM, 250)
    SCAN_DIRECTION = _id(3, ParamType.ENUM, 251)
    GAIN_INDEX = _id(2, ParamType.INT16, 512)
    SPDTAB_INDEX = _id(2, ParamType.INT16, 513)
    GAIN_NAME = _id(2, ParamType.CHAR_PTR, 514)
    SPDTAB_NAME = _id(2, ParamType.CHAR_PTR, 515)
    READOUT_PORT = _id(2, ParamType.ENUM, 247)
    PIX_TIME = _id(2, ParamType.UNS16, 516)
    PP_FEAT_NAME = _id(2, ParamType.CHAR_PTR, 542)
    PP_INDEX = _id(2, ParamType.INT16, 543)
    ACTUAL_GAIN = _id(2, ParamType.UNS16, 544)
    PP_PARAM_INDEX = _id(2, ParamType.INT16, 545)
    PP_PARAM_NAME = _id(2, ParamType.CHAR_PTR, 546)
    PP_PARAM = _id(2, ParamType.UNS32, 547)
    READ_NOISE = _id(2, ParamType.UNS16, 548)
    PP_FEAT_ID = _id(2, ParamType.UNS16, 549)
    PP_PARAM_ID = _id(2, ParamType.UNS16, 550)
    SMART_STREAM_MODE_ENABLED = _id(2, ParamType.BOOLEAN, 700)
    SMART_STREAM_MODE = _id(2, ParamType.UNS16, 701)
    SMART_STREAM_EXP_PARAMS = _id(2, ParamType.VOID_PTR, 702)
    EXP_TIME = _id(3, ParamType.UNS16, 1)
    EXP_RES = _id(3, ParamType.ENUM, 2)
    EXP_RES_INDEX = _id(3, ParamType.UNS16, 4)
    EXPOSURE_TIME = _id(3, ParamType.UNS64, 8)
    CIRC_BUFFER = _id(3, ParamType.BOOLEAN, 299)
    FRAME_BUFFER_SIZE = _id(3, ParamType.UNS64, 300)
    BINNING_SER = _id(3, ParamType.ENUM, 165)
    BINNING_PAR = _id(3, ParamType.ENUM, 166)
    METADATA_ENABLED = _id(3, ParamType.BOOLEAN, 168)
    METADATA_RESET_TIMESTAMP = _id(3, ParamType.BOOLEAN, 176)
    ROI_COUNT = _id(3, ParamType.UNS16, 169)
    CENTROIDS_MODE = _id(3, ParamType.ENUM, 173)
