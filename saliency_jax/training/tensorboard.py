"""The parts of tensorboardX that `writers` needs, without PyTorch.

tensorboardX imports PyTorch wherever it is installed, to accept its tensors: half of
the time that a training run takes to start, for something that is never used.
"""

import sys

_absent = "torch" not in sys.modules
if _absent:
    sys.modules["torch"] = None  # makes `import torch` fail
try:
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
finally:
    if _absent:
        del sys.modules["torch"]

__all__ = ["Event", "EventsWriter", "SessionLog", "Summary", "summary"]
