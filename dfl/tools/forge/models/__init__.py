"""Models as makers of `dfl forge`: Stable Diffusion and its kin, diffusion of pixels, generators as files.

Nothing heavy is imported until an entry of ``--models`` asks for it.
"""

#: What an entry may name in short, and the module that has it. Other classes are named by their import path.
CLASSES = {
    "TextToImage": "dfl.tools.forge.models.diffusion",
    "Edit": "dfl.tools.forge.models.diffusion",
    "Instruct": "dfl.tools.forge.models.diffusion",
    "Inpaint": "dfl.tools.forge.models.diffusion",
    "GanFile": "dfl.tools.forge.models.gan_file",
    "Lama": "dfl.tools.forge.models.lama",
    "Vae": "dfl.tools.forge.models.vae",
    "Unconditional": "dfl.tools.forge.models.unconditional",
    "Repaint": "dfl.tools.forge.models.unconditional",
    "LatentRepaint": "dfl.tools.forge.models.unconditional",
    "Captions": "dfl.tools.forge.captions",
    "AttributesTable": "dfl.tools.forge.attributes",
    "AttributesNet": "dfl.tools.forge.attributes",
    "AttributesDeepFace": "dfl.tools.forge.attributes",
    "GramCheck": "dfl.tools.forge.gram",
}
