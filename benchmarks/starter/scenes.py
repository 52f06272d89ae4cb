"""Invented captions and product texts: a text teacher can tell what any of them means, so none needs a picture."""

import re
from collections.abc import Iterator

import numpy as np

PEOPLE = """a man; a woman; a boy; a girl; a young man; a young woman; an old man; an old woman; a child; a little
boy; a little girl; a toddler; a baby; two men; two women; two boys; two girls; three people; a group of people; a
crowd; several people; a couple; a family; a father and his son; a mother and her daughter; two children; kids; a
person; a teenager; a player; a worker; a construction worker; a chef; a cook; a waiter; a doctor; a nurse; a soldier;
a police officer; a firefighter; a musician; a guitarist; a singer; a dancer; a bride and groom; a clown; a cyclist; a
skier; a snowboarder; a surfer; a swimmer; a runner; a rock climber; a hiker; a skateboarder; a football player; a
baseball player; a basketball player; a tennis player; a hockey player; a farmer; a fisherman; a street vendor; a
tourist; a student; a teacher; a cowboy; an artist; a biker; a motorcyclist; a gymnast; a cheerleader; a boxer; an
Asian woman; a black man; a bearded man; a bald man; a blond girl; friends; an elderly couple; a pedestrian; a
jogger"""
ANIMALS = """dog; puppy; cat; kitten; horse; pony; cow; sheep; goat; pig; elephant; giraffe; zebra; lion; tiger; bear;
polar bear; panda; monkey; gorilla; rabbit; squirrel; mouse; fox; wolf; deer; camel; kangaroo; bird; parrot; eagle;
owl; duck; swan; goose; chicken; rooster; penguin; pigeon; seagull; fish; goldfish; shark; dolphin; whale; turtle;
frog; snake; lizard; crocodile; butterfly; bee; spider; ant; snail; crab; lobster; golden retriever; labrador; german
shepherd; poodle; bulldog; beagle; husky; dalmatian; collie; greyhound; terrier; chihuahua; dachshund; tabby cat; sea
lion; seal; otter; hedgehog; hamster; donkey; bull; ostrich; flamingo; peacock; leopard; cheetah; rhinoceros;
hippopotamus; jellyfish; octopus; starfish; dragonfly; ladybug"""
THINGS = """car; red sports car; truck; bus; school bus; fire truck; ambulance; police car; taxi; train; steam train;
tram; bicycle; motorcycle; scooter; boat; sailboat; ship; canoe; airplane; helicopter; hot air balloon; tractor; van;
skateboard; surfboard; snowboard; pair of skis; ball; football; basketball; baseball bat; tennis racket; frisbee;
kite; umbrella; backpack; handbag; suitcase; hat; cap; helmet; pair of glasses; sunglasses; watch; ring; necklace;
shoe; boot; sneaker; sandal; shirt; t-shirt; jacket; coat; dress; skirt; pair of jeans; pair of shorts; tie; scarf;
glove; sock; chair; armchair; sofa; table; desk; bed; lamp; clock; mirror; bookcase; shelf; cupboard; door; window;
curtain; carpet; television; laptop; computer; keyboard; mouse; phone; camera; radio; microphone; speaker; guitar;
piano; violin; drum; trumpet; saxophone; flute; book; newspaper; letter; pen; pencil; paintbrush; scissors; knife;
fork; spoon; plate; bowl; cup; mug; glass; bottle; wine glass; teapot; kettle; frying pan; oven; refrigerator;
microwave; toaster; sink; bathtub; toilet; toothbrush; towel; soap; hammer; screwdriver; saw; drill; ladder; bucket;
broom; shovel; rope; candle; flower; rose; sunflower; tree; palm tree; cactus; mushroom; leaf; apple; banana; orange;
lemon; strawberry; grapes; pineapple; watermelon; peach; pear; cherry; tomato; potato; carrot; onion; broccoli;
cabbage; corn; pepper; cucumber; lettuce; bread; sandwich; hamburger; hot dog; pizza; pasta; rice; soup; salad;
cheese; egg; steak; cake; cupcake; doughnut; cookie; ice cream; chocolate; coffee; tea; milk; beer; wine; orange
juice; house; castle; church; mosque; temple; bridge; tower; lighthouse; skyscraper; barn; windmill; fence; fountain;
statue; traffic light; street sign; stop sign; fire hydrant; bench; mailbox; flag; tent; swing; slide; balloon; toy;
teddy bear; doll; robot; rocket; key; lock; coin; gift; crown; trophy; globe; map; painting; basket; barrel; box; bag;
pot; vase"""
COLOURS = """red; blue; green; yellow; orange; purple; pink; black; white; brown; gray; beige; golden; silver; dark
blue; light blue; dark green; striped; checkered; colorful; bright; wooden; metal; old; new; large; small; tiny; huge;
shiny; dirty; broken; empty; round; long; plastic; leather"""
CLOTHES = """shirt; t-shirt; jacket; coat; dress; hat; cap; sweater; hoodie; pair of jeans; shorts; suit; uniform;
skirt; swimsuit; bikini; helmet; vest; scarf; backpack; apron; tank top; jersey; costume; wetsuit; hard hat;
sunglasses; boots"""
ACTIONS = """is standing; is sitting; is walking; is running; is jumping; is smiling; is laughing; is sleeping; is
eating; is drinking; is talking on the phone; is reading a book; is playing the guitar; is playing the drums; is
playing the piano; is singing into a microphone; is dancing; is cooking; is taking a photograph; is painting a
picture; is riding a bicycle; is riding a horse; is riding a motorcycle; is driving a car; is rowing a boat; is
paddling a kayak; is surfing a wave; is swimming; is diving; is fishing; is skiing down a slope; is snowboarding; is
ice skating; is doing a trick on a skateboard; is climbing a rock wall; is climbing a ladder; is hiking; is camping;
is playing soccer; is playing football; is playing basketball; is playing baseball; is playing tennis; is playing
volleyball; is playing hockey; is playing golf; is playing with a toy; is playing with a ball; is throwing a frisbee;
is catching a ball; is kicking a ball; is hitting a ball with a bat; is flying a kite; is blowing bubbles; is holding
a baby; is holding a sign; is holding an umbrella; is carrying a bag; is pushing a stroller; is pulling a cart; is
walking a dog; is petting a dog; is feeding birds; is sitting on a bench; is sitting at a table; is lying on the
grass; is lying in bed; is waiting for a bus; is crossing the street; is looking at the camera; is looking out of a
window; is pointing at something; is waving; is hugging a friend; is kissing; is shaking hands; is working on a
computer; is fixing a bicycle; is repairing a roof; is digging a hole; is cutting wood; is washing dishes; is cleaning
the floor; is painting a wall; is selling fruit; is shopping; is splashing in water; is sliding down a slide; is
swinging on a swing; is doing a handstand; is doing a flip; is performing on stage; is marching in a parade; is
watching a game; is drawing with chalk; is opening a present; is blowing out candles; is brushing teeth; is putting on
makeup; is crying; is wrestling; is boxing; is running a race; is jumping into a pool; is jumping over a hurdle; is
wading through a stream; is building a sandcastle; is making a snowman; is sledding down a hill"""
DOINGS = """is running; is jumping; is sitting; is standing; is lying down; is sleeping; is eating; is drinking water;
is swimming; is playing; is walking; is looking at the camera; is catching a frisbee; is fetching a stick; is carrying
a ball in its mouth; is chasing a ball; is jumping over a fence; is shaking off water; is being petted; is barking; is
digging; is climbing a tree; is flying; is perched on a branch; is grazing; is wearing a collar; is rolling on the
ground; is running with another dog; is fighting with another one; is licking its nose; is looking out of a window"""
PLACES = """on the beach; on a street; on a city street; in a park; in the grass; in a grassy field; in a forest; in
the woods; in the mountains; on a mountain; on top of a mountain; in the snow; on snow; in the water; in the ocean; in
a lake; in a river; in a swimming pool; in a garden; in a backyard; in a kitchen; in a living room; in a bedroom; in a
bathroom; in an office; in a classroom; in a restaurant; in a bar; in a shop; in a supermarket; at a market; in a
stadium; on a basketball court; on a tennis court; on a soccer field; on a baseball field; on a playground; on a
sidewalk; on a bridge; on a train; on a bus; in a train station; at an airport; in a car; on a boat; on a dock; on a
roof; on stage; at a concert; at a party; at a wedding; at a parade; in front of a building; in front of a house; in
front of a store; in front of a crowd; next to a tree; next to a car; next to a lake; near a fence; under a tree;
under an umbrella; under a bridge; in the desert; on sand; on a dirt road; on a path; on a trail; in the rain; at
night; at sunset; in the dark; in a museum; in a church; in a library; in a gym; in a hospital; in a barn; on a farm;
in a zoo; on a wooden table; on a table; on a plate; on a bed; on a couch; on a chair; on the floor; on a shelf; on a
white background; in a box; in a basket; against a blue sky; against a brick wall; by the window; by the sea; by the
road"""
TEMPLATES = """{person} {action}; {person} {action} {place}; {person} {action} {place}; {person} in a {colour}
{clothes} {action} {place}; {person} wearing a {colour} {clothes} and a {colour} {clothes} {action}; {person} and
{person} {place}; {person} with a {thing} {place}; {person} holding a {thing}; {person} wearing a {clothes}; a
{animal} {doing} {place}; a {colour} {animal} {doing}; a {colour} {animal} {doing} {place}; two {animal}s {place};
{person} and a {animal} {place}; a {animal} with a {thing} in its mouth; a {colour} {thing}; a {colour} {thing}
{place}; a {thing} {place}; a {thing} and a {thing}; a {thing}, a {thing} and a {thing} {place}; a {colour} {thing}
next to a {colour} {thing}; several {thing}s {place}; {frame} a {thing}; {frame} a {animal}; {frame} {person}; {frame}
a {colour} {thing}; {frame} {person} {place}; {person} {action} while {person} {action}; {person} in a {colour}
{clothes} is holding a {thing} {place}; {person} {action} with a {animal} {place}; a {colour} and {colour} {animal}
{doing} {place}; {colour} {clothes} for women; men's {colour} {clothes}; a {colour} {clothes}; a {thing} full of
{thing}s; a {thing} with {thing}s on it; {person} standing next to a {colour} {thing}; {person} looks at a {thing}
{place}; there is a {thing} {place}; a view of a {thing} {place}"""
FRAMES = """a photo of; a picture of; an image of; a drawing of; a cartoon of; an icon of; a close-up of; a black and
white photo of; a clip art picture of; a product photo of; a painting of"""

GARMENTS = """hoodie; sweatshirt; jacket; t-shirt; tee; tank top; shirt; polo shirt; sweater; cardigan; vest; coat;
parka; raincoat; pants; leggings; capri pants; shorts; jeans; chinos; skirt; dress; gown; blouse; sports bra;
underwear; socks; sneakers; boots; sandals; heels; loafers; hat; cap; beanie; scarf; gloves; belt; backpack; handbag;
tote bag; duffel bag; messenger bag; wallet; watch; sunglasses; necklace; ring; earrings; bracelet; yoga mat; water
bottle; dumbbell; jump rope; exercise ball; tent; sleeping bag; lamp; chair; armchair; sofa; table; desk; bed; shelf;
rug; curtain; pillow; blanket; towel; mug; plate; bowl; teapot; kettle; pan; knife; toaster; blender; coffee maker;
headphones; speaker; laptop; phone case; camera; toy car; teddy bear; puzzle; doll; bicycle; helmet; skateboard; soap;
shampoo; perfume; lipstick; cereal; chocolate bar; cookies; pasta; rice; apple juice; milk; yogurt; cheese; bread;
tomatoes; apples; bananas; coffee; tea"""
NAMES = """Aria; Zoe; Chloe; Luna; Nora; Mona; Selena; Iris; Ruby; Hera; Juno; Daphne; Max; Leo; Otto; Hugo; Marco;
Theo; Bruno; Oscar; Atlas; Orion; Apollo; Titan; Summit; Ridge; Harbor; Coast; Meadow; Aspen; Denver; Oslo; Milano;
Verona; Classic; Essential; Nova; Vento; Stella; Terra; Aero; Pulse; Swift; Endeavor"""
QUALITIES = """lightweight; warm; soft; stretchy; breathable; waterproof; slim fit; relaxed fit; oversized; cropped;
sleeveless; long sleeve; short sleeve; hooded; zip-up; pullover; printed; striped; two-tone; heather; vintage; modern;
casual; elegant; sporty; compact; foldable; reusable; portable; premium; organic; seamless; quilted; knitted;
reversible"""
MATERIALS = """cotton; organic cotton; polyester; a cotton blend; merino wool; fleece; linen; denim; leather; silk;
nylon; spandex; recycled plastic; stainless steel; oak; pine; bamboo; glass; ceramic; rubber; canvas; a
moisture-wicking fabric; a stretchy knit"""
FEATURES = """a drawstring hood; a full zip; a half zip; front pockets; zippered pockets; a kangaroo pocket; ribbed
cuffs; a crew neck; a V-neck; a mock collar; an elastic waistband; flat seams; mesh panels; reflective stripes; thumb
holes; a contrast lining; a racerback; padded straps; adjustable straps; a built-in bra; a logo on the chest; a
rounded hem; side slits; a water-resistant shell; a cushioned sole; a non-slip surface; a leakproof lid; a wide base;
a folding handle; a padded laptop sleeve; an inner pocket; a soft lining; machine washable fabric; UV protection;
quick-drying fabric"""
USES = """running; yoga; the gym; training; hiking; cycling; travel; work; school; the beach; cold mornings; rainy
days; summer days; winter; everyday wear; a night out; the office; the kitchen; the living room; the garden; camping;
a weekend trip; your workout; lounging at home; team sports; dancing; kids; gifts"""
PRODUCTS = """{name} {garment}; {name} {quality} {garment}; {colour} {garment}; {quality} {garment}; {quality}
{colour} {garment} for {use}; {name} {garment}, {colour}; men's {quality} {garment}; women's {quality} {garment};
kids' {colour} {garment}; {garment} made of {material}; {name} {garment}. This {quality} {garment} is made of
{material}. Perfect for {use}.; The {name} {garment} keeps you comfortable on {use}. It has {feature} and {feature}.;
{name} {quality} {garment}. Made from {material} with {feature}. Great for {use}.; {colour} {quality} {garment} with
{feature}.; {garment} with {feature} and {feature}, ideal for {use}; Stay dry and comfortable in the {name} {garment}.
With {feature}, {feature} and {feature}, it is the {it} for {use}. {colour} {material}.; {colour} {garment}.
{quality}. {feature}. {feature}. Machine wash.; a product photo of a {colour} {garment}; a {quality} {colour}
{garment} on a white background"""


def phrases(text: str) -> list[str]:
    """The parts of a list that is parted by semicolons."""
    return [" ".join(part.split()) for part in text.split(";") if part.strip()]


_WORDS = {
    "person": phrases(PEOPLE),
    "animal": phrases(ANIMALS),
    "thing": phrases(THINGS),
    "colour": phrases(COLOURS),
    "clothes": phrases(CLOTHES),
    "action": phrases(ACTIONS),
    "doing": phrases(DOINGS),
    "place": phrases(PLACES),
    "frame": phrases(FRAMES),
    "garment": phrases(GARMENTS),
    "name": phrases(NAMES),
    "quality": phrases(QUALITIES),
    "material": phrases(MATERIALS),
    "feature": phrases(FEATURES),
    "use": phrases(USES),
}


def scenes(count: int, *, seed: int) -> Iterator[str]:
    """Captions, of a few words to a few dozen, of the kinds that people write under photos."""
    return _invented(phrases(TEMPLATES), count=count, seed=seed)


def products(count: int, *, seed: int) -> Iterator[str]:
    """Names and descriptions of the kinds that shops write under their products."""
    return _invented(phrases(PRODUCTS), count=count, seed=seed)


def _invented(templates: list[str], *, count: int, seed: int) -> Iterator[str]:
    random = np.random.default_rng(seed)

    def word(slot: re.Match[str]) -> str:
        words = [told["garment"]] if slot[1] == "it" else _WORDS[slot[1]]
        told[slot[1]] = words[random.integers(len(words))]
        return told[slot[1]]

    told: dict[str, str] = {}
    for template in random.integers(0, len(templates), count).tolist():
        text = re.sub(r"\{(\w+)\}", word, templates[template])
        yield re.sub(r"\ba (?=[aeio])", "an ", text)
