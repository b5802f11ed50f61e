"""The peer: LitServe with the same file of the same encoder, in an environment of its own.

python peer.py ENCODE.ONNX PORT SIZE BATCH WAIT_S
"""

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Body, Response
from PIL import Image

PATH, PORT, SIZE, BATCH, WAIT_S = Path(sys.argv[1]), *map(int, sys.argv[2:5]), float(sys.argv[5])


class Encode(litserve.LitAPI):
    """Encodes a raw array, a .npy file or a PNG."""

    def setup(self, device: str) -> None:
        """Load the file, with the options that our server uses."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        self.session = onnxruntime.InferenceSession(PATH.read_bytes(), options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: Annotated[bytes, Body()]) -> np.ndarray:
        """The row of a body."""
        if request[:4] == b"\x89PNG":
            with Image.open(io.BytesIO(request)) as image:
                return np.asarray(image, np.float32)[None]
        if request[:6] == b"\x93NUMPY":
            return np.load(io.BytesIO(request), allow_pickle=False)[0].astype(np.float32)
        return np.frombuffer(request, np.uint8).reshape(1, SIZE, SIZE).astype(np.float32)

    def predict(self, rows: Any) -> np.ndarray:
        """Codes of a row, or of the rows of a batch."""
        given = rows[None] if BATCH == 1 else np.asarray(rows)
        return self.session.run(["z"], {"raw": given})[0]

    def encode_response(self, output: np.ndarray) -> Response:
        """Codes as .npy."""
        buffer = io.BytesIO()
        np.save(buffer, output if BATCH == 1 else output[None])
        return Response(buffer.getvalue(), media_type="application/x-npy")


if __name__ == "__main__":
    api = Encode(max_batch_size=BATCH, batch_timeout=WAIT_S)
    litserve.LitServer(api, accelerator="cpu", timeout=30).run(
        port=PORT, log_level="warning", generate_client_file=False
    )
