"""Sources: one public data set layout per class. Importing one here is what makes it known by its short name."""

from dfl.data.sources.base import ROW_SCHEMA, Source, TrainTest, Unsplit, to_table
from dfl.data.sources.casia import CasiaV1, CasiaV2
from dfl.data.sources.celeb_df import CelebDf
from dfl.data.sources.cifake import Cifake
from dfl.data.sources.cnndetection import ForenSynths
from dfl.data.sources.deeperforensics import DeeperForensics
from dfl.data.sources.deepfakebench import DeepfakeBench, Df40
from dfl.data.sources.degraded import Degraded
from dfl.data.sources.dfdc import Dfdc, Dfdcp
from dfl.data.sources.diffusion_forensics import DiffusionForensics
from dfl.data.sources.dolos import Dolos
from dfl.data.sources.faceforensics import FaceForensics
from dfl.data.sources.fairness import AiFace, PgFdd
from dfl.data.sources.folder import Folder
from dfl.data.sources.genimage import GenImage
from dfl.data.sources.joined import Joined
from dfl.data.sources.kaggle140k import Kaggle140k
from dfl.data.sources.manifests import ForensicHub, ImdlBenco, Spai
from dfl.data.sources.only import Only
from dfl.data.sources.openforensics import OpenForensics
from dfl.data.sources.packed import Packed
from dfl.data.sources.paths import Paths
from dfl.data.sources.shards import CommunityForensics, OpenSdi
from dfl.data.sources.sid_set import SidSet
from dfl.data.sources.splicing import AutoSplice, CocoGlide, Columbia, Coverage, Dso1
from dfl.data.sources.table import Table
from dfl.data.sources.tampering import Imd2020, Korus, Nist16
from dfl.data.sources.toy import Toy
from dfl.data.sources.universal_fake_detect import UniversalFakeDetect
