"""What users see: one short file per node, widgets in, one call out."""

from comfy_api.latest import io

from .detail_blind_choice import DetailBlindChoice
from .detail_compare import DetailCompare
from .detail_foreground import DetailForeground
from .detail_guidance import DetailGuidance
from .detail_guidance_calibrate import DetailGuidanceCalibrate
from .detail_guidance_grid import DetailGuidanceGrid, DetailGuidanceJudge
from .detail_guidance_options import DetailGuidanceOptions
from .detail_guidance_report import DetailGuidanceReport
from .detail_guider import DetailGuider
from .detail_metrics import DetailMetrics
from .detail_scores import DetailAestheticScore
from .dit_features import DiTFeatures
from .dit_features_file import LoadDiTFeatures, SaveDiTFeatures
from .massive_activation_map import MassiveActivationMap
from .massive_activation_probe import MassiveActivationProbe
from .massive_activation_profile import LoadMassiveActivationProfile, SaveMassiveActivationProfile
from .match_features import MatchFeatures
from .prompt_word_mask import PromptWordMask
from .prompt_words import PromptWords
from .show_features import ShowFeatures

NODES: list[type[io.ComfyNode]] = [
    DetailGuider,
    DetailGuidance,
    DetailGuidanceOptions,
    DetailGuidanceCalibrate,
    DetailGuidanceGrid,
    DetailGuidanceJudge,
    DetailAestheticScore,
    DetailBlindChoice,
    DetailGuidanceReport,
    MassiveActivationProbe,
    MassiveActivationMap,
    SaveMassiveActivationProfile,
    LoadMassiveActivationProfile,
    DetailMetrics,
    DetailCompare,
    DiTFeatures,
    MatchFeatures,
    ShowFeatures,
    SaveDiTFeatures,
    LoadDiTFeatures,
    PromptWords,
    DetailForeground,
    PromptWordMask,
]
