"""The machine of toy.sh: it writes a number to its disk, then acknowledges it in a file, for ever."""

import os
import sys
import time

STEP = 0.002
SIZE = 1 << 20


def main(folder: str) -> None:
    with open(f"{folder}/pid", "w") as file:
        file.write(str(os.getpid()))
    with open(f"{folder}/acknowledged") as file:
        number = int(file.read())
    disk = os.open(f"{folder}/disk", os.O_RDWR)
    while True:
        if os.path.exists(f"{folder}/quiet"):  # noqa: PTH110 - what pathlib imports takes long
            os.close(os.open(f"{folder}/quiet.done", os.O_CREAT))
        else:
            if os.path.exists(f"{folder}/quiet.done"):  # noqa: PTH110
                os.unlink(f"{folder}/quiet.done")  # noqa: PTH108
            number += 1
            os.pwrite(disk, number.to_bytes(8, "little"), 0)
            with open(f"{folder}/acknowledged.new", "w") as file:
                file.write(str(number))
            os.replace(f"{folder}/acknowledged.new", f"{folder}/acknowledged")  # noqa: PTH105
        time.sleep(STEP)


if __name__ == "__main__":
    main(sys.argv[1])
