"""Keys of event-camera recordings (DVS): sensor, sampling of events and augmentation."""

from slowfast.config.key import Key, Section
from slowfast.config.rules import MAX_SIDE, Choices, Forms, Name, Range

DVS = Section("DVS", "Event cameras", "Recordings of event cameras (dynamic vision sensors, DVS).")

DVS.SENSOR_SIZE = Key(
    [180, 240],
    "Height and width of the sensor.",
    unit="pixels",
    rule=Range(1, MAX_SIDE),
    length=2,
    origin="Event2Vec",
)
DVS.TIME_UNIT = Key(1e-6, "Duration of one timestamp tick in the files.", unit="seconds", rule=Range(1e-12, 3600))
DVS.CLASS_ORDER = Key(
    "number",
    "Order of numbered class folders: number (0, 1, 2, ..., 10) or name (0, 1, 10, 2, ...), which weights trained with "
    "the authors' code need.",
    rule=Choices("number", "name"),
)
DVS.STREAM = Key(
    "",
    "Name of the event stream of files with several (AEDAT 4, HDF5, ROS bags); `slowfast events info` lists them.",
    rule=Name(),
)
DVS.NUM_EVENTS = Key(
    255,
    "Events per sample; 0 for all. A shorter recording contributes all of its events.",
    unit="events",
    rule=Range(0, 10**9),
    origin="Event2Vec",
)
DVS.CLUSTERS = Key(
    False,
    "The files contain clusters of events (slowfast cluster-dvs), all of which are used: DVS.NUM_EVENTS is the length "
    "they are padded to, and DVS.SAMPLER and DVS.TIME_UNIT do not apply.",
    origin="Event2Vec",
)
DVS.SAMPLER = Key(
    "random_sample",
    "Selection of the events; multivariate_gaussian_sample draws one per interval, random_chunk_sample_n chunks.",
    rule=Forms(
        {
            "random_sample": "random_sample",
            "uniform_sample": "uniform_sample",
            "deterministic_uniform_sample": "deterministic_uniform_sample",
            "gaussian_sample": "gaussian_sample",
            "multivariate_gaussian_sample": "multivariate_gaussian_sample",
            "random_chunk_sample_n": "random_chunk_sample_[1-9][0-9]{0,8}",
        },
        "n: events per chunk",
    ),
    origin="Event2Vec",
)
DVS.ALL_EVENTS = Key(
    False,
    "Training: an epoch covers all events of every recording. One of n events counts as n / DVS.NUM_EVENTS samples "
    "(rounded up), each a different random part of its events; DVS.SAMPLER then applies to evaluation only.",
    origin="Event2Vec",
)
DVS.TIME_NORM = Key(
    "dataset",
    "Unit of the timestamps fed to the network: none (microseconds), sample (duration of the sample) or dataset "
    "(duration of the longest training recording).",
    rule=Choices("none", "sample", "dataset"),
    origin="Event2Vec",
)
DVS.LONGEST = Key(
    0,
    "Duration of the longest training recording; 0 measures it once from the first and last events and caches it.",
    unit="microseconds",
    rule=Range(0, 10**15),
    origin="Event2Vec",
)
DVS.FRAMES = Key(
    "counts",
    "dvsframes: content of the DATA.NUM_FRAMES frames of a recording: counts of events, voxels (each event is "
    "shared between the two nearest frames), signed_voxels (ON minus OFF events), time_surface (exponential decay "
    "since the latest event of each pixel) or decayed (sum of the decayed events).",
    rule=Choices("counts", "voxels", "signed_voxels", "time_surface", "decayed"),
)
DVS.FRAME_GAIN = Key(
    64.0,
    "dvsframes: gray levels (of 255) per event, or of a new event in surfaces (255 uses the whole range of "
    "time_surface).",
    unit="gray levels",
    rule=Range(1e-3, 10**6),
)
DVS.FRAME_DECAY = Key(
    50_000.0,
    "dvsframes: decay constant of DVS.FRAMES time_surface and decayed.",
    unit="microseconds",
    rule=Range(1, 10**12),
)
DVS.AUG_PROB = Key(
    0.5,
    "Probability of each enabled augmentation below; AUG.ENABLE enables them.",
    unit="probability",
    rule=Range(0, 1),
    origin="Event2Vec",
)
DVS.AUG_POLICY = Key(
    "sample",
    "Augmentation: sample (each transform is applied with DVS.AUG_PROB to each recording, about the center of the "
    "sensor; events that leave it are removed) or batch (as in Event2Vec v3: each transform is switched on for whole "
    "batches with DVS.AUG_PROB, scaling and shear are about the corner; events that leave the sensor become invalid).",
    rule=Choices("sample", "batch"),
    origin="Event2Vec",
)
DVS.FLIP_X = Key(False, "Flip horizontally.", origin="Event2Vec")
DVS.FLIP_Y = Key(False, "Flip vertically.")
DVS.FLIP_POLARITY = Key(False, "Swap the polarities.")
DVS.TRANSLATE = Key(
    0, "Largest translation along each axis.", unit="pixels", rule=Range(0, MAX_SIDE), origin="Event2Vec"
)
DVS.ROTATE = Key(0.0, "Largest rotation.", unit="degrees", rule=Range(0, 1000), origin="Event2Vec")
DVS.SHEAR = Key(0.0, "Largest shear.", unit="ratio", rule=Range(0, 1000), origin="Event2Vec")
DVS.SCALE = Key(
    [1.0, 1.0], "Range of the scale factor.", unit="factor", rule=Range(1e-3, 1000), length=2, origin="Event2Vec"
)
DVS.TIME_JITTER = Key(
    0.0,
    "Standard deviation of the noise added to each timestamp, relative to the duration of the sample.",
    unit="fraction",
    rule=Range(0, 100),
)
DVS.DROP = Key(
    0.0, "Largest probability with which each event is dropped.", unit="probability", rule=Range(0, 1, below=True)
)
DVS.NOISE = Key(
    0.0, "Largest number of random events added, relative to the sample.", unit="fraction", rule=Range(0, 100)
)
DVS.ERASE = Key(
    0,
    "Largest side of a square (DVS.AUG_POLICY batch: largest height and width of a rectangle) in which all events are "
    "erased.",
    unit="pixels",
    rule=Range(0, MAX_SIDE),
    origin="Event2Vec",
)
DVS.ERASE_PROB = Key(
    1.0,
    "Probability of erasing a recording where DVS.AUG_PROB has chosen DVS.ERASE.",
    unit="probability",
    rule=Range(0, 1),
    origin="Event2Vec",
)
DVS.DROP_CHUNKS = Key(
    [0, 0],
    "Number of chunks of consecutive events that are dropped, and their largest length; 0 for none. Chunks are shorter "
    "in recordings with fewer than DVS.NUM_EVENTS events (DVS.AUG_POLICY batch).",
    unit="events",
    rule=Range(0, 10**9),
    length=2,
    origin="Event2Vec",
)
DVS.WARP_CHUNKS = Key(
    [0, 0],
    "Number of chunks of consecutive events whose times are scaled, each event by its own factor, and their largest "
    "length; 0 for none (DVS.AUG_POLICY batch).",
    unit="events",
    rule=Range(0, 10**9),
    length=2,
    origin="Event2Vec",
)
DVS.WARP_SCALE = Key(
    [0.8, 1.2],
    "Smallest and largest factor of DVS.WARP_CHUNKS.",
    rule=Range(0, 100),
    length=2,
    origin="Event2Vec",
)
