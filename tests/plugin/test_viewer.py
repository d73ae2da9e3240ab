"""nerfstudio's viewer on a trained checkpoint: the address it binds to, and what a real browser shows."""

from __future__ import annotations

import functools
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.browser import Browser, free_port, wait_for


def listening(port: int) -> set[str]:
    """The local addresses that a port listens on, from the kernel's table."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            address, number = line.split()[1].rsplit(":", 1)
            if int(number, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found


def test_ns_viewer_listens_on_this_machine_alone_and_prints_its_address(trained, tmp_path):
    port = free_port()
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        viewer = subprocess.Popen(
            [str(Path(sys.executable).parent / "ns-viewer"), "--load-config", str(trained.config),
             "--viewer.websocket-port", str(port)],
            cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for(lambda: listening(port), what=lambda: f"ns-viewer, which printed {log.read_text()[-2000:]}")
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=20).read()
        assert b"<html" in page.lower()
        assert listening(port) == {"0100007F"}  # 127.0.0.1, as the kernel writes it
        wait_for(lambda: f"127.0.0.1:{port}" in log.read_text(), 20, "the address on screen")
    finally:
        viewer.terminate()
        viewer.wait(20)


def resemblance(shown: np.ndarray, render: np.ndarray) -> float:
    """Correlation of two pictures of one view, at 48x48, where neither's compression nor its resolution matters."""
    small = [
        np.asarray(Image.fromarray((image * 255).astype(np.uint8)).resize((48, 48), Image.Resampling.BOX))
        for image in (shown, render)
    ]
    return float(np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1])


def test_chromium_shows_the_render_of_a_training_pose(trained, tmp_path, monkeypatch):
    import nerfstudio.configs.method_configs  # noqa: F401 (before `writer`, which imports it in a circle)
    import viser.transforms as vtf
    from nerfstudio.utils import writer
    from nerfstudio.utils.eval_utils import eval_setup
    from nerfstudio.viewer.utils import CameraState, get_camera
    from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer

    monkeypatch.chdir(tmp_path)
    config, pipeline, _, step = eval_setup(trained.config, test_mode="test")
    config.viewer.websocket_port = free_port()
    config.logging.local_writer.enable = False
    viewer = Viewer(
        config.viewer, log_filename=tmp_path / "viewer.txt", datapath=tmp_path, pipeline=pipeline, train_lock=None
    )
    writer.setup_local_writer(config.logging, max_iter=step)
    assert viewer.control_panel.max_res == config.pipeline.viewer_resolution  # low, on a CPU
    viewer.init_scene(pipeline.datamanager.train_dataset, "completed", pipeline.datamanager.eval_dataset)
    viewer.update_scene(step=step)
    viewer.set_camera_visibility(False)
    browser = Browser(tmp_path / "profile", f"http://127.0.0.1:{config.viewer.websocket_port}")
    try:
        client = wait_for(lambda: next(iter(viewer.viser_server.get_clients().values()), None), what="a client")
        wait_for(lambda: client.camera.aspect > 0, what="its camera")
        cameras = pipeline.datamanager.train_dataset.cameras

        @functools.cache
        def render(index: int, fov: float, aspect: float) -> np.ndarray:
            """What the viewer should show with the client at a training pose: the model's own picture."""
            pose = cameras.camera_to_worlds[index].double()
            state = CameraState(fov=fov, aspect=aspect, c2w=pose, camera_type=cameras.camera_type[0])
            with torch.no_grad():
                outputs = pipeline.model.eval().get_outputs_for_camera(get_camera(state, 120, int(120 * aspect)))
            return outputs["rgb"].cpu().numpy()

        def score(index: int) -> float:
            # The page lays itself out after it has connected: its camera's shape changes once.
            fov, aspect = client.camera.fov, client.camera.aspect
            return resemblance(browser.scene(aspect), render(index, fov, aspect))

        for index, other in ((5, 35), (35, 5)):
            pose = cameras.camera_to_worlds[index].numpy().astype(np.float64)
            rotation = vtf.SO3.from_matrix(pose[:, :3]) @ vtf.SO3.from_x_radians(np.pi)
            with client.atomic():
                client.camera.wxyz = rotation.wxyz
                client.camera.position = pose[:, 3] * VISER_NERFSTUDIO_SCALE_RATIO
            wait_for(lambda index=index: score(index) > 0.9, what=f"the render of pose {index}")
            assert score(other) < 0.8  # another pose's picture does not pass
    finally:
        machines = list(viewer.render_statemachines.values())
        browser.close()
        viewer.viser_server.stop()
        for machine in machines:  # a thread that still renders when Python ends would abort it
            machine.running = False
            machine.join(60)
