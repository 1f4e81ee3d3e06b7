"""Families of the generators that the public sets name."""

_FAMILIES = {
    "gan": "progan stylegan stylegan2 stylegan3 biggan cyclegan stargan gaugan whichfaceisreal attgan "
    "infomaxgan mmdgan relgan s3gan sngan styleclip e4e vqgan stgan openforensics",
    "diffusion": "adm sdv1 sdv1.4 sdv1.5 sdv2 sdv3 sdv4 sdv5 sd15 sd2 sd2.1 sd3 sdxl flux glide guided ldm wukong "
    "vqdm midjourney dalle2 dalle3 ddpm iddpm pndm if repaint repaint-p2 repaint-p2-9k latent_diffusion palette dit "
    "sit pixart rddm p2",
    "autoregressive": "dalle var",
    "face-swap": "deepfakes faceswap faceshifter deepfakedetection dfdc deeperforensics celeb-df blendface simswap "
    "fsgan inswap uniface mobileswap roop e4s facedancer method_a method_b",
    "reenactment": "face2face neuraltextures",
    "low-level": "seeingdark san",
    "perceptual": "crn imle",
    "inpainting": "lama pluralistic",
    "edit": "deepfake manual",
}
_BY_NAME = {name: family for family, names in _FAMILIES.items() for name in names.split()}


def family_of(generator: str) -> str:
    """Return the family of a generator; '' if it is not known. ``glide_50_27`` is looked up as ``glide`` too."""
    name = generator.lower()
    return _BY_NAME.get(name) or _BY_NAME.get(name.split("_")[0], "")


def made_by(generator: str, method: str = "") -> dict[str, str]:
    """Return what a row says of its generator."""
    return {"generator": generator, "family": family_of(generator), "method": method}
