import pytest
import torch
from torch.nn.functional import conv2d, relu
from torchvision.models import resnet18

from distill.models import CifarResNet18, CifarResNet34, CifarResNet50


@pytest.mark.parametrize(("factory", "blocks"), [(CifarResNet18, 8), (CifarResNet34, 16), (CifarResNet50, 16)])
def test_it_is_torchvisions_network(factory, blocks):
    with torch.device("meta"):
        model = factory(num_classes=10)
    assert sum(len(stage) for stage in (model.layer1, model.layer2, model.layer3, model.layer4)) == blocks


def test_only_the_stem_differs_from_torchvision():
    torch.manual_seed(0)
    ours, theirs = CifarResNet18(num_classes=10).eval(), resnet18(num_classes=10).eval()
    state = {key: value for key, value in ours.state_dict().items() if key != "conv1.weight"}
    assert theirs.load_state_dict(state, strict=False).missing_keys == ["conv1.weight"]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        x = relu(theirs.bn1(conv2d(images, ours.conv1.weight, stride=1, padding=1)))
        x = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
        torch.testing.assert_close(ours(images), theirs.fc(x.mean((2, 3))), rtol=1e-5, atol=1e-5)
