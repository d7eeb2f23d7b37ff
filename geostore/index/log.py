"""The catalog's durable part: an append log in segment files, with snapshots made elsewhere.

One frame is one atomic commit. `LogWriter.append` writes it, `LogWriter.sync` makes all that
was appended durable with one fdatasync and then tells readers, through the head. `LogReader`
follows in this process or another: whether there is anything new is one read of memory.

Rules that nobody else needs to know:

- The writer keeps the file's length ahead of its content (`reserve_bytes`, of zeros): an
  fdatasync then need not write the length as well, a third of what ext4 writes otherwise. The
  zeros are cut off when the segment is finished and when the log is closed.
- A segment is synced before the next is made, and appears whole, by a rename. So only the last
  can end in a torn frame.
- After a failed fsync the kernel may have dropped what it could not write, and shows it as
  written until it leaves memory. So the writer takes nothing more, and the next one writes
  what it finds beyond the head's position once more before it calls it durable.
- Readers see what was synced. Exceptions: what a crashed writer left whole is seen after the
  next one opened the log; and where the head is missing, damaged, or of a system that has been
  started again since, a reader that opens the log takes all whole frames.
- A forked child reads on; it cannot append.

One writer at a time: keeping others out is the caller's.
"""

from geostore.index.log_disk import LogDisk
from geostore.index.log_layout import FRAME_BYTES_MAX, START, Frame, FrameAt, Position
from geostore.index.log_reader import LogReader
from geostore.index.log_recovery import Recovery
from geostore.index.log_segments import LogDroppedError
from geostore.index.log_writer import SEGMENT_BYTES, LogWriter

__all__ = [
    "FRAME_BYTES_MAX",
    "SEGMENT_BYTES",
    "START",
    "Frame",
    "FrameAt",
    "LogDisk",
    "LogDroppedError",
    "LogReader",
    "LogWriter",
    "Position",
    "Recovery",
]
