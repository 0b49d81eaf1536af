"""jaxgen's command line: flags only.

    python main.py --config=configs/ddpm_digits.py --workdir=runs/ddpm_digits

trains, or goes on from what is in the workdir. Any key of the config can be overridden: --config.seed=1.
"""

from __future__ import annotations

import sys

from jaxgen.large_pages import restart_with_large_pages

if __name__ == "__main__":
    restart_with_large_pages()  # before the imports, which it would do twice

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from jaxgen import cli  # noqa: E402

config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment's file, such as configs/ddpm_digits.py.",
    accept_new_attributes=True,
    lock_config=False,
)
flags.DEFINE_string("workdir", "", "The run's folder: made, or resumed. gs:// works.")
flags.DEFINE_string("mode", "train", "train, sample, evaluate, plan or profile.")
flags.DEFINE_integer("num", 64, "--mode=sample: how many images (one a prompt); --quiz: how many pairs.")
flags.DEFINE_integer("seed", 0, "--mode=sample, --quiz: image i depends on the seed and on i alone.")
flags.DEFINE_string("out", "", "--mode=sample, plan, profile: the folder for what is written.")
flags.DEFINE_list("labels", None, "--mode=sample: the classes to draw, such as 3 or 0,1,2; all without it.")
flags.DEFINE_string("checkpoint", "last", "--mode=sample, evaluate: last, best (see train.keep_best), or a step.")
flags.DEFINE_bool("quiz", False, "--mode=evaluate: also quiz.html, which asks people which images are real.")
flags.DEFINE_string("topology", "", "--mode=plan: the machine, such as v5e:2x4, v5p:4x4x4, v6e:16x16 or cpu:8.")
flags.DEFINE_bool("find_batch", False, "--mode=plan: double the batch size until it no longer fits.")
flags.DEFINE_multi_string("prompt", [], "--mode=sample: what a text-to-image model draws; may be given several times.")
flags.DEFINE_string("prompts", "", "--mode=sample: a file of such texts, one a line.")
flags.DEFINE_string("negative_prompt", "", "--mode=sample: the text that guidance leads away from.")
flags.DEFINE_string("latents", "", "--mode=sample: an npy file of noise to start from, [N, h, w, c] or [N, c, h, w].")
flags.DEFINE_bool("list", False, "Print every config with its method, its data and what it is.")

if __name__ == "__main__":
    sys.exit(cli.main(sys.argv, __doc__, folder="configs"))
